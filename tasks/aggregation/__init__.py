"""What the coordinator does with a sum of updates: the server's optimizer step."""
