"""A story, as a tutorial of 2022 asks for one. Needs openai==0.28.1."""
import openai  # OPENAI_API_BASE and OPENAI_API_KEY say where the server is, and who asks.

answer = openai.Completion.create(
    engine="text-davinci-002", prompt="Tell me a story about a robot.", max_tokens=150, n=1, stop=None, temperature=0.5
)
print(answer.choices[0].text.strip())
