"""Running a trained model; torch only inside the torch backend."""
