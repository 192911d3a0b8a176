"""What the commands do: run notebooks without a person, write reports, print documents."""
