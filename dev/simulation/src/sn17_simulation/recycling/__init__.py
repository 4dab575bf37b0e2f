"""Ways to live with workers that fail, in virtual time: same tasks, same faults, another caretaker."""
