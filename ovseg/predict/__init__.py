"""From an image to a result: windows, arg-max, drawing, files."""
