"""WHERE AND WHEN: one folder per party; configuration only, no logic."""
