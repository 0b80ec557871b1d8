"""Tables, plots and pictures of a comparison."""
