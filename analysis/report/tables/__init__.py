"""Tables, one file for each kind of thing that they show."""
