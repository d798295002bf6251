"""A dialogue with its history. Needs openai==0.28.1."""
import openai

history = [{"role": "system", "content": "You are a helpful assistant."}]
for question in ["What is the capital of France?", "And what is it famous for?"]:
    history.append({"role": "user", "content": question})
    answer = openai.ChatCompletion.create(model="gpt-3.5-turbo-instruct", messages=history, max_tokens=80, temperature=0)
    history.append(answer.choices[0].message)
    print(f"> {question}\n{history[-1].content.strip()}")
