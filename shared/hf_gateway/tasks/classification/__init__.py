"""Labels with scores for texts and images."""
