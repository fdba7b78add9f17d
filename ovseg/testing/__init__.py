"""Checks that ship with the package: parity with the authors' outputs, toy towers."""
