"""What the two trainers of the embedded nano models share: their pictures."""
