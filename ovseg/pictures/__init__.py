"""Any source (path, URL, PIL, array, tensor, raster) → RGB uint8."""
