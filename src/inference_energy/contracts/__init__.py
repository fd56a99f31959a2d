"""The data contracts: the only thing that acquisition and analysis share."""
