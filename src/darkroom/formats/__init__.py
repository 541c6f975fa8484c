"""What a trained model is written as, and loaded from: one file for each format."""
