"""From raw readings to figures: windows, integration, checks, attribution and fits. Pure functions of files."""
