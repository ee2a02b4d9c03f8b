"""Documents → pages in flight → finished documents. Everything concurrent is in here."""
