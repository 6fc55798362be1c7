"""The mixture recommender: a gated mixture of the neighborhood of a query and a head for all users."""
