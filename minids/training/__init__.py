"""From text to a trained model: corpus, tokenizer, batches, optimizer, schedule, and the loop that joins them."""
