// A request that left and was not answered: nobody waits for ever, and nobody is told it failed.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "cli/process.hpp"
#include "support/loopback_listener.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;
using testing::Not;

class Unanswered : public testing::Test {
 protected:
  testing_support::TempFolder folder;
  const Arguments add{"send", "kv.add", R"({"collection":"c","key":"k","delta":5})", "--key", "once", "--deadline-ms", "100"};
};

TEST_F(Unanswered, CONSOLE_9_a_server_that_hangs_is_left_after_the_deadline_with_the_key_to_repeat) {
  Serving serving(folder.path());
  ASSERT_EQ(serving.ask({"send", "sluice.echo"}).status, 0);
  kill(serving.pid(), SIGSTOP);
  const Ran hung = serving.ask(add);
  const Ran read = serving.ask({"tx", "list", "--deadline-ms", "100"});
  kill(serving.pid(), SIGCONT);
  EXPECT_EQ(hung.status, 4) << hung.err;
  EXPECT_THAT(hung.err, HasSubstr("may have taken effect"));
  EXPECT_THAT(hung.err, HasSubstr("--key once"));
  EXPECT_THAT(hung.err, Not(HasSubstr("sluice serve")));
  EXPECT_EQ(read.status, 1) << "a question that changes nothing";
  EXPECT_THAT(read.err, HasSubstr("no answer"));
  const Ran again = serving.ask(add);
  EXPECT_EQ(again.status, 0) << again.err;
  const Ran number = serving.ask({"send", "kv.get", R"({"collection":"c","key":"k"})", "--json"});
  EXPECT_EQ(nlohmann::json::parse(number.out)["number"], 5) << "once, whichever of the two it was";
}

/// Takes one connection, reads a little of it, and goes away without an answer.
class Breaks {
 public:
  explicit Breaks(bool reset) : thread_([this, reset] {
      const int one = listener_.accept();
      char some[64];
      (void)!::read(one, some, sizeof some);
      const linger now{1, 0};
      if (reset) setsockopt(one, SOL_SOCKET, SO_LINGER, &now, sizeof now);
      close(one);
    }) {}
  ~Breaks() { thread_.join(); }
  std::string server() const { return listener_.url(); }

 private:
  testing_support::LoopbackListener listener_;
  std::thread thread_;
};

TEST_F(Unanswered, CONSOLE_9_a_connection_that_breaks_in_a_request_is_an_unknown_outcome) {
  for (const bool reset : {true, false}) {
    Breaks breaks(reset);
    const Ran broken = run(folder.path(), add, {{"SLUICE_SERVER", breaks.server()}});
    EXPECT_EQ(broken.status, 4) << broken.err;
    EXPECT_THAT(broken.err, HasSubstr("--key once"));
    EXPECT_THAT(broken.err, Not(HasSubstr("sluice serve")));
  }
  Breaks breaks(true);
  const Ran json = run(folder.path(), {"send", "sluice.token.create", R"({"name":"a"})", "--json"}, {{"SLUICE_SERVER", breaks.server()}});
  EXPECT_EQ(json.status, 4);
  const auto problem = nlohmann::json::parse(json.out);
  EXPECT_EQ(problem["kind"], "unknown_outcome");
  EXPECT_THAT(problem["detail"].get<std::string>(), HasSubstr("had no key"));
}

TEST_F(Unanswered, CONSOLE_9_nobody_there_is_said_as_before) {
  const Ran gone = run(folder.path(), add, {{"SLUICE_SERVER", "http://127.0.0.1:1"}});
  EXPECT_EQ(gone.status, 1);
  EXPECT_THAT(gone.err, HasSubstr("sluice serve"));
}

}  // namespace
}  // namespace sluice::cli_test
