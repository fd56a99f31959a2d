"""Parts of `load_clients.py`: servers that know what they sent, the clients as programs, and who watches them."""
