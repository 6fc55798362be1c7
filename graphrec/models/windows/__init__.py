"""A recommender of lists for the coming days, trained on windows."""
