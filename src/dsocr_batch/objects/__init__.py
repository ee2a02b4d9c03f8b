"""Object stores: what they hold, and what is asked of them."""
