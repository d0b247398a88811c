"""What a learner is paid: reward models, rules, functions of the user's own, judges, and their combinations."""
