"""What a run leaves, as pages: its report, its Slack messages, and pictures of both."""
