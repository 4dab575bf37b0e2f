"""A gateway of one's own: clients hand in prompts, workers pull tasks and hand in results."""
