"""The mixture recommender: a gated mixture of the people around a query and a head for all users."""
