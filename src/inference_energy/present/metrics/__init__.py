"""What people see of the metric family: tables and figures of the report, and of the terminal."""
