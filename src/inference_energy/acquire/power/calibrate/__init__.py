"""A node's own power channels against an external meter: gain and offset of their sum."""
