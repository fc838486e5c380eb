"""What people are told when something needs them: the texts, who gets them, how they are delivered. No Dagster here."""
