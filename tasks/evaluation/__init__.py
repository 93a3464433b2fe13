"""Metrics per endpoint, uplift between arms, sums that may leave a partner, and the pictures of them."""
