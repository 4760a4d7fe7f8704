"""Plans: defaults, what a schedule trains, and what it costs."""
