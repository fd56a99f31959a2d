"""The bench as a discrete-event simulation, which writes the raw files of a session without waiting for anything."""
