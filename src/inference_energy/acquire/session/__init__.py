"""The rules that hold a live server or the idle machine: the session and the cold idle baseline."""
