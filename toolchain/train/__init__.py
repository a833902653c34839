"""How weights come about: training loops, losses, early stopping."""
