"""What people read: the report, the power trace and the lines a run ends with."""
