"""What a learner is paid: reward models, and later rules, judges and their combinations."""
