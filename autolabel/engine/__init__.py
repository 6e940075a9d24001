"""What is computed (labeler), and when and where (the engines)."""
