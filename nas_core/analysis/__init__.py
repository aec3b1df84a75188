"""What searches and trainings found: tables, fronts, comparisons. Nothing here steers them."""
