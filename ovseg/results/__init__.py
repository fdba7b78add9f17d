"""The family of results: values that can be asked, drawn, saved and read back."""
