"""The power sources, one file each; `choose.candidates` lists them."""
