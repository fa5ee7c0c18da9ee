"""What is answered: documents, predictions, rankings, citations."""
