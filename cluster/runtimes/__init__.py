"""Where roles live: one process (`inline`) or Ray actors (`ray`)."""
