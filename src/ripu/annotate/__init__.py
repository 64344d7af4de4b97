"""A person answers: the questions of a round, the journal of answers, the page, and exchange with other tools."""
