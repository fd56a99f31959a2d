"""The load client: sends the planned requests and records what comes back."""
