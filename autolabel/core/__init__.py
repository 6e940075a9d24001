"""Types, seams and errors. numpy and the standard library only."""
