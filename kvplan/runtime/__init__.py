"""What running engines are told and say: command lines, start-up logs, and the account of the two against a plan."""
