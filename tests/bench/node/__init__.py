"""The node folder, the virtual driver, and the pipeline on them."""
