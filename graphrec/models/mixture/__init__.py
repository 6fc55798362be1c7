"""The mixture recommender: a gated mixture of neighborhood components and a head that covers all users."""
