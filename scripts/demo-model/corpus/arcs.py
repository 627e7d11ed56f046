"""Plot arcs of the story grammar, part one. Each arc is a list of beats, each beat a list of ways to tell it.

A beat whose first entry is a number is told with that probability. Slots: {N} hero's name, {he} {him} {his} {He}
{His} pronouns, {kind}; the same with f for the friend ({fN}, {fhe}, ...); the rest is drawn in stories.py.
"""

LOST = [
    ["{N} had {acolour} {thing}, and {he} loved it more than anything else.",
     "Of all the things {N} owned, {he} liked {his} {colour} {thing} best.",
     "{His} {adult} had given {him} {acolour} {thing}, and {N} took it everywhere.",
     "{N} always carried {acolour} {thing}. It was {his} favourite thing in the world."],
    ["One day, {he} looked for the {thing}, but it was gone.", "One morning, the {thing} was not in its place.",
     "But one {time}, {N} could not find the {thing} anywhere.", "Then, one windy day, the {thing} was suddenly gone."],
    ["{N} looked {searched} and {searched2}, but it was not there.", "{He} searched {searched}. {He} searched {searched2}. Nothing!",
     "First {he} looked {searched}, then {searched2}, but {he} found only dust.", "\"Where can it be?\" {he} asked, and looked {searched} and {searched2}."],
    [0.6, "{N} sat down and began to cry.", "A big tear ran down {his} nose.", "{He} felt very sad.", "\"I will never see it again,\" {he} said sadly."],
    ["Just then, {fT} came by. \"What is wrong?\" {fhe} asked.", "{His} friend {fN} heard {him}. \"Why are you so sad?\" asked {fN}.",
     "Along came {fT}, who lived nearby. \"Can I help you?\" {fhe} asked.", "{fT} saw {him} and stopped. \"What happened?\" {fhe} said."],
    ["\"I lost my {thing},\" said {N}. \"Then let us look together,\" said {fN}.", "{N} told {fhim} about the {thing}. \"Two can look better than one,\" {fN} said.",
     "\"My {colour} {thing} is gone,\" {N} answered. \"Do not worry,\" said {fN}, \"we will find it.\""],
    [0.7, "They walked back the way {N} had come, step by step.", "\"Where did you play yesterday?\" asked {fN}. {N} thought about it for a long time.",
     "They asked {guide}, but {guide_short} had not seen it.", "They looked high and they looked low."],
    ["At last, {fN} saw something {colour} {hiding}. It was the {thing}!", "Then {N} gave a shout. There, {hiding}, was the {colour} {thing}!",
     "And what did they see {hiding}? The {colour} {thing}!", "Finally they found it {hiding}, a little dirty but not broken."],
    ["{N} jumped with joy and hugged {fN}. \"Thank you!\" {he} said.", "\"You are the best friend in the world,\" {N} told {fhim}.",
     "{N} was so happy that {he} danced around {fN}.", "\"I could not have done it without you,\" said {N}."],
    [0.5, "From that day on, {he} always put the {thing} back in its place.", "Then they shared some {food} and played until evening.",
     "That night, {N} slept with the {thing} beside {him}."],
]

FEAR = [
    ["{N} was afraid of {fear}.", "There was one thing that {N} did not like at all: {fear}.", "{N} had a secret. {He} was afraid of {fear}.",
     "Everybody knew that {N} was {trait}, but nobody knew that {he} was afraid of {fear}."],
    ["{He} always ran away {fearwhen}.", "{His} knees began to shake {fearwhen}.", "{He} hid behind {his} {adult} {fearwhen}."],
    [0.5, "The others laughed at {him}, and that made {N} feel even smaller.", "\"I wish I were brave,\" {he} whispered.", "{He} did not tell anyone."],
    ["One {time}, {his} friend {fT} did not come home.", "One day, {fT} called for help.",
     "One {time}, {fT} got lost and needed help."],
    ["To reach {fhim}, {N} had to face {fear}.", "{N} knew that only {he} was near enough, but there was {fear}.",
     "The only way to {fN} meant facing {fear}."],
    ["{N} took a deep breath and counted to three.", "{His} heart was beating fast, but {he} thought of {his} friend.",
     "\"I am afraid,\" {N} said, \"but {fN} needs me.\"", "{He} closed {his} eyes, then opened them again and went on."],
    ["Step by step {he} went on, and with every step the fear became smaller.", "{He} sang a little song to keep {his} courage up.",
     "It was hard at first, but then it became a little easier.", "And nothing bad happened at all."],
    ["There was {fN}! {fHe} was cold and tired, but safe.", "At last {he} heard a small voice. It was {fN}.", "{N} found {fN} {hiding} and took {fhim} by the hand."],
    ["\"You came!\" cried {fN}. \"You are the bravest {kind} I know.\"", "\"Thank you,\" said {fN}. \"Were you not afraid?\" \"I was,\" said {N}, \"but I came anyway.\"",
     "{fN} smiled at {him}. \"You are so brave,\" {fhe} said."],
    [0.6, "From then on, {N} was not so afraid of {fear} any more.", "{N} walked home and felt very tall.", "When {his} {adult} heard about it, {N} got a big hug."],
]

SHARE = [
    ["One {time}, {N} found a basket full of {food}.", "{His} {adult} baked a big plate of {food} for {N}.", "One day, {N} had a whole bag of {food}.",
     "{N} had picked and gathered all day, and now there was a big pile of {food}."],
    ["\"All of this is mine,\" {he} said happily.", "It smelled wonderful, and {N} wanted to eat it all alone.", "{N} hid it {hiding} so that nobody would see it."],
    ["Then {fT} came along. {fHe} had not eaten since morning.", "{fT} stopped and looked at the {food} with big eyes.",
     "There was a knock. It was {fT}, and {fhe} looked hungry."],
    ["\"May I have a little?\" {fhe} asked.", "\"That looks good,\" said {fN} quietly.", "\"I am so hungry,\" said {fN}."],
    ["\"No,\" said {N}, \"there is not enough.\" {fN} went away without a word.", "{N} shook {his} head, and {fN} walked away sadly.",
     "{N} pretended not to hear, so {fN} left."],
    ["{N} began to eat, but it did not taste as good as before.", "But now {N} did not feel happy at all.", "{He} took a bite. Somehow {he} was not hungry any more."],
    ["{He} thought of {fN} and felt sorry.", "{He} remembered how {fN} had once helped {him}.", "\"{fN} would have shared with me,\" {he} thought."],
    ["So {he} ran after {fhim} as fast as {he} could.", "{He} took the {food} and went to look for {fhim}.", "\"{fN}, wait!\" {he} called."],
    ["\"I am sorry,\" said {N}. \"Please eat with me.\"", "\"Let us share,\" {he} said, and gave {fhim} half of everything.", "\"There is enough for two,\" {N} said with a smile."],
    ["They sat down together {place_in} and ate until nothing was left.", "{fN} smiled, and the two of them ate and laughed together.",
     "Now the {food} tasted better than ever."],
]

FRIEND = [
    ["{N} often played alone.", "{N} had many toys, but nobody to play with.", "{N} wished for a friend more than anything."],
    ["One {time}, someone new came to live {place_in}. It was {fN}, {afkind}.", "One day, {afkind} called {fN} moved into the empty house next door.",
     "One {time}, {N} saw {afkind} {he} did not know. {fHis} name was {fN}."],
    ["{fN} was very quiet and looked at the ground.", "{fN} stood behind the fence and did not say a word.", "Nobody spoke to {fN}, because {fhe} was different from the others."],
    ["{N} wanted to say hello, but {he} did not know how.", "\"What if {fhe} does not like me?\" thought {N}.", "{N} felt shy too."],
    ["Then {he} had an idea. {He} brought {fhim} some {food}.", "At last {N} went over and held out {his} {colour} {thing}.", "{N} rolled {acolour} ball over to {fhim}."],
    ["\"Would you like to play with me?\" {he} asked.", "\"This is for you,\" {he} said. \"I am {N}.\"", "\"Hello,\" said {N}. \"Do you want to see my secret place?\""],
    ["{fN} looked up and smiled for the first time.", "\"Yes, please,\" said {fN} in a very small voice.", "{fHis} eyes began to shine."],
    ["They played {place_in} all day long.", "They climbed, ran and laughed until they fell into the grass.", "{fN} knew a new game, and {N} knew the best hiding places."],
    [0.6, "\"I thought nobody wanted to play with me,\" said {fN}. \"I thought so too,\" said {N}, and both laughed.", "\"Will you come back tomorrow?\" asked {fN}. \"Of course,\" said {N}."],
    ["From that day on, {N} and {fN} were always together.", "After that, neither of them was ever lonely again.", "So {N} and {fN} became best friends."],
]

RESCUE = [
    ["One {time}, {N} was walking {place_in} when {he} heard a small cry.", "One rainy day, {N} heard somebody calling for help.", "On the way home, {N} heard a soft sound {hiding}."],
    ["It was a little {small}. It {trap}.", "{He} looked closer and saw a {small}. It {trap}.", "There was a tiny {small}, and it {trap}."],
    ["\"Do not be afraid,\" {N} said softly. \"I will help you.\"", "{N} did not think twice. {He} knelt down beside it.", "\"Poor little thing,\" said {N}."],
    ["{He} tried to help, but {he} was not strong enough alone.", "{He} pulled and pushed, but it was no use.", "But {N} did not know what to do."],
    ["So {he} ran to get {fT}.", "Luckily, {fT} was close by.", "{N} called {his} friend {fT}, who came at once."],
    ["Together they worked slowly and carefully until the {small} was free.", "\"You hold it and I will pull,\" said {fN}. And it worked!", "{fN} brought a rope, and together they saved the {small}."],
    ["They took it home and gave it some {food} and a warm bed.", "{N} wrapped it in {his} scarf and carried it home.", "They stayed with it until it was warm and calm."],
    ["After a few days, the {small} was well again.", "Soon the {small} was strong and happy.", "The next morning, the {small} felt much better."],
    ["It was time to say goodbye. {N} was a little sad, but also proud.", "When it left, it turned around one last time, as if to say thank you.", "They brought it back to its mother, who was waiting."],
    [0.5, "Every year after that, the {small} came back to visit {N}.", "\"We did a good thing today,\" said {fN}.", "{N} never forgot that little {small}."],
]

BUILD = [
    ["{N} wanted to build a {project}.", "One {time}, {N} had a great idea. {He} would build a {project}!", "\"I am going to build a {project},\" {N} said one day."],
    ["{He} gathered {materials} and began to work.", "{He} found {materials} {hiding} and started at once.", "{His} {adult} gave {him} {materials}, and the work began."],
    ["{N} worked the whole morning. But the {project} began to {fail}.", "After many hours the {project} was ready, but it started to {fail}.", "{He} was in a hurry, and so the {project} had to {fail}."],
    ["\"It is no good!\" {N} cried and threw down {his} tools.", "{N} was so angry that {he} wanted to stop.", "{N} sighed. All that work for nothing!"],
    ["{fT} had watched {him}. \"May I help?\" {fhe} asked.", "Then {fT} came over. \"The first try is never the best,\" {fhe} said.", "\"Do not give up,\" said {fT}. \"Let us look at it together.\""],
    ["They took it apart and looked at every piece.", "{fN} found the mistake. \"You need to make it stronger here,\" {fhe} said.", "\"We should plan first,\" said {fN}, and drew a picture in the sand."],
    ["Then they began again, slowly this time.", "They measured, they tied, and they tested every part.", "{N} held the pieces, and {fN} put them together."],
    ["In the evening, the new {project} was ready.", "Two days later they were done.", "At last they put the final piece in place."],
    ["And look! It could {success}!", "They held their breath. It did {success}!", "This time it was able to {success}."],
    ["\"We did it!\" shouted {N} and {fN} together.", "{N} laughed with joy. \"It works!\"", "Everybody came to see it and clapped their hands."],
]
