"""Studies: a grid of tasks × variants × seeds as ordinary runs, and one report of them."""
