"""From an image to a result: windows, argmax, drawing, files."""
